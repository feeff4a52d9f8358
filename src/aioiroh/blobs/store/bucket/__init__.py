"""A store whose content lies in S3-compatible object storage."""
