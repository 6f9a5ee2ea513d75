// Package custom makes custom resources out of CustomResourceDefinitions: each
// version of a definition becomes a resource.Resource of the same kind as the
// literal ones, whose hooks prune, default, validate, convert and show
// unstructured objects by the version's schema.
//
// Contract: everything here is a function of definitions and objects, except
// webhook conversion, which calls out with a deadline. A Definition keeps
// names and little else; schemas are read from the stored definition and
// compiled when they are first needed, and Schemas forgets those that were not
// used for longest. Resources are safe for concurrent use.
package custom
