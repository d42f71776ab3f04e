"""The kubelet's gRPC APIs: the .proto files and the code generated from them.

`tox -e proto` regenerates the code and fails on a difference.
"""
