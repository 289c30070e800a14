"""How large a problem our sampler takes on; apart, so that who asks loads no sampler."""

MOST_POINTS = 4_000_000  # all of a lattice, forbidden ones too: they are held in a gigabyte
MOST_OBJECTIVES = 6  # beyond them nearly every point is on the front
