"""Raw sets as they lie on a disk in, labelled samples out."""
