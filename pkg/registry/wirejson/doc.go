// Package wirejson turns the protobuf encoding of a Kubernetes object into its
// JSON without decoding it: a plan is made once for each Go type out of its
// json and protobuf tags, and then walks the bytes.
//
// Contract: Append gives byte for byte what encoding/json gives for the object
// that the type's Unmarshal makes of the bytes, or ErrUnusual, when the caller
// has to go that way. A plan is immutable and holds no object.
package wirejson
