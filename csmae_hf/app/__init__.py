"""The explorer: a page on which a person looks at an archive, asks it across sensors, and sees why."""
