// Package expression compiles and evaluates the CEL expressions of admission:
// the matchConditions of webhooks and policies, and all else that policies
// hold. It is the one place of admission that knows cel-go.
//
// Contract: expressions see `object`, `oldObject`, `request` and
// `namespaceObject`, and what Declarations adds to them, in the environment of
// the Kubernetes level of the library. A call costs at most what the library
// calls the per-call limit; what is evaluated in one Run shares its budget,
// and ctx ends it. An expression that does not compile or that fails is an
// error which says so in upstream's words, never a panic. Whoever holds
// compiled expressions holds them in a Lazy, which compiles on first use and
// is emptied when too many others were used since. A Compiler and Lazies are
// safe for concurrent use; a Scope is until it is complete, and a Run is for
// one goroutine.
package expression
