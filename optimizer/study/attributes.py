"""Names of what a study keeps beside its trials, in the user attributes of Optuna's study."""

FORMAT = 1  # of all that follows

FORMAT_ATTRIBUTE = "trifront:format"
IDENTITY = "trifront:id"
MEANING = "trifront:meaning"
SPACE = "trifront:space"
SPACE_FILE = "trifront:space_file"
DIGESTS = "trifront:digests"
ENVIRONMENT = "trifront:environment"
SAMPLER = "trifront:sampler"  # what our own one was made with, as JSON
