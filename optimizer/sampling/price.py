"""Where a trial says what it cost; apart, so that who writes it loads no sampler."""

PRICE = "price_s"
"""User attribute of a trial: [seconds for what others share, seconds of its own]."""
