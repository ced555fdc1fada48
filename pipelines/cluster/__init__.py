"""Ray clusters: connecting, submitting jobs, KubeRay manifests, spot machines."""
