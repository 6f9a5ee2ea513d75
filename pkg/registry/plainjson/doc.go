// Package plainjson decodes the JSON of typed Kubernetes objects that has
// nothing special, in one pass.
//
// Contract: what Decode accepts it decodes as sigs.k8s.io/json does, which finds
// nothing wrong with it; whatever is not plain (an unknown or repeated field,
// another type, a number that is no whole one, text that is no JSON) is
// ErrUnusual, and the library has to say what is wrong with it. Nothing of the
// input is kept. What Merge accepts it makes of an object as a merge patch of its
// JSON does.
package plainjson
