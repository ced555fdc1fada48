"""Files on local disks and S3: reading, atomic writes, retries, and why a request failed."""
