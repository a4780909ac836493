"""The split on one machine: four services as four processes, and a front on one port.

For seeing it, not for production: there an Ingress routes, and Kubernetes starts and restarts.
"""
