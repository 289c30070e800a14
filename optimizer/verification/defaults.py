"""How an export is checked unless told; apart, so that ``--help`` need not load the checks."""

# share of a speed that does not matter: sessions of one engine differ by percents without a cause.
# Of eleven comparisons of the unchanged on a shared machine that was quiet, three were "worse" at
# 2 %, one at 5 % and none at 10 %
MARGIN = 0.1
SESSIONS = 3
