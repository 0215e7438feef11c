"""What the Trainer subclass adds."""

import torch

from csmae_hf.training.trainer import flip_together


def test_flips_move_all_sensors_of_a_place_together():
    coordinates = torch.stack(
        torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    )  # (2, 4, 4): row, column
    places = coordinates + 100 * torch.arange(64.0).reshape(-1, 1, 1, 1)
    flipped = flip_together({"s1": places, "s2": places.repeat(1, 3, 1, 1)})
    assert torch.equal(flipped["s1"], flipped["s2"][:, :2])


def test_flips_give_each_of_the_four_orientations():
    image = torch.arange(4.0).reshape(1, 1, 2, 2)
    flipped = flip_together({"s1": image.expand(64, 1, 2, 2)})["s1"]
    seen = {tuple(one.flatten().tolist()) for one in flipped}
    assert seen == {(0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0)}


def test_flips_follow_the_generator():
    images = {"s1": torch.rand(8, 2, 4, 4)}
    once, again = (flip_together(images, torch.Generator().manual_seed(5))["s1"] for _ in range(2))
    assert torch.equal(once, again)
