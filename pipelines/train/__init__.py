"""The training job: normal images become a saved model."""
