"""What a trial says of itself to our sampler; apart, so that who writes it loads no sampler."""

PRICE = "price_s"
"""User attribute of a trial: [seconds for what others share, seconds of its own]."""

INTERRUPTED = "interrupted"
"""User attribute of a failed trial: true where the point had no part in it."""
