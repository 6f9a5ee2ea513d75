// Package openapi serves the API's description: /openapi/v2, one document of
// everything, and /openapi/v3, one document for each group version, in JSON
// and in protobuf.
//
// Paths follow from the table of resources, and so does what clients decide
// by: x-kubernetes-action, x-kubernetes-group-version-kind and the query
// parameters of each operation. Schemas come from a catalog that
// `go run ./hack/openapi` makes of the Go types in k8s.io/api; it is embedded
// compressed, in the very bytes that documents consist of.
//
// Contract: making a Handler costs nothing. The first request for a document
// builds it, one at a time; what stays in memory is the compressed document
// and its hash. A document that changes has another hash, so that a client which
// asks for a hash may keep the answer for good.
package openapi
