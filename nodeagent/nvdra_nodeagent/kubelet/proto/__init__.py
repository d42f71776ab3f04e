"""The kubelet's gRPC APIs: .proto files written from the published services, and the code generated from them."""
