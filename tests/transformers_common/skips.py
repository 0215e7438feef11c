"""Which of Transformers' common tests skip themselves here, and why each may.

A pattern stands for a test and its parametrised forms. Where the reason is hardware or a package, the test runs on a machine
that has it.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase

SKIPS: dict[str, tuple[str, ...]] = {
    "needs an accelerator, and this machine may have none": (
        "test_can_load_with_device_context_manager",
        "test_can_load_with_global_device_set",
        "test_cpu_offload",
        "test_disk_offload_bin",
        "test_disk_offload_safetensors",
        "test_flex_attention_with_grads",
        "test_model_parallelism",
        "test_sdpa_can_compile_dynamic",
        "test_sdpa_can_dispatch_on_flash",
    ),
    "needs Flash Attention 2, 3 or 4, which are packages for GPUs": (
        "test_flash_attn_[234]_can_dispatch_composite_models",
        "test_flash_attn_[234]_from_config",
        "test_flash_attn_[234]_inference_equivalence",
        "test_flash_attn_[234]_inference_equivalence_right_padding",
        "test_flash_attn_2_can_compile_with_attention_mask_None_without_graph_break",
        "test_flash_attn_2_fp32_ln",
    ),
    "needs the `kernels` package, or Apple's MPS": (
        "test_flash_attn_kernels_inference_equivalence",
        "test_flash_attn_kernels_mps_inference_equivalence",
        "test_kernels_can_load_without_crashing",
    ),
    "needs the `peft` package, which only the extra `dev` names": ("test_peft_gradient_checkpointing_enable_disable",),
    "is of models with a vocabulary: token embeddings, language-model heads, their losses (and DeepSpeed with them)": (
        "test_causal_lm_loss_honors_shift_labels",
        "test_encoder_decoder_loss_no_double_shift",
        "test_inputs_embeds",
        "test_inputs_embeds_matches_input_ids",
        "test_resize_embeddings_untied",
        "test_resize_embeddings_untied_no_reinit_on_post_init",
        "test_resize_embeddings_untied_with_deepspeed*",
        "test_resize_position_vector_embeddings",
        "test_resize_tokens_embeddings",
        "test_resize_tokens_embeddings_with_deepspeed*",
    ),
    "is of composite models, with a configuration inside the configuration": (
        "test_attn_implementation_composite_models",
        "test_can_set_attention_dynamically_composite_model",
        "test_internal_model_config_and_subconfig_are_same",
        "test_sdpa_can_dispatch_composite_models",
    ),
    "is of mixtures of experts, which the model has none of": (
        "test_eager_matches_batched_and_grouped_inference_*",
        "test_moe_models_record_router_logits",
        "test_output_router_logits_from_config",
    ),
    "is of rotary positions; ours are frozen sin-cos": (
        "test_model_rope_scaling_frequencies",
        "test_model_rope_scaling_from_config_*",
        "test_model_rope_with_partial_rotation",
        "test_vision_axial_rope",
    ),
    "is of sliding-window attention": ("test_sliding_window_mask",),
    "is of tensor parallelism; the model has no plan for it": (
        "test_tied_head_has_a_tp_plan_entry",
        "test_tp_plan_matches_params",
    ),
    "is of checkpoints whose keys are renamed at load; ours are written as they are": (
        "test_can_load_from_already_mapped_keys",
        "test_reverse_loading_mapping",
    ),
    "is of weights that stay in float32; ours all follow `dtype`": (
        "test_keep_in_fp32_modules",
        "test_keep_in_fp32_modules_exist",
    ),
    "is of outputs recorded by hooks; ours are returned, by sensor (test_hidden_states_output, test_attention_outputs)": (
        "test_can_capture_specific_layers_hidden_states",
        "test_capture_outputs_decorator",
    ),
    "takes token ids; tests/test_export.py compiles forward and backward instead": ("test_torch_compile_for_training",),
}
"""Tests by the reason for which they do not run."""


def reason_to_skip(test: str) -> str | None:
    """Why a test may skip itself, or `None` where it may not."""
    return next((reason for reason, patterns in SKIPS.items() if _any_matches(patterns, test)), None)


def unused_entries(tests: Iterable[str]) -> list[str]:
    """Patterns that are the name of no test any more."""
    names = list(tests)
    return [
        pattern
        for patterns in SKIPS.values()
        for pattern in patterns
        if not any(_any_matches((pattern,), name) for name in names)
    ]


def _any_matches(patterns: Iterable[str], test: str) -> bool:
    return any(fnmatchcase(test, pattern) for pattern in patterns)
