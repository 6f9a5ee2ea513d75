// Package celpolicy enforces ValidatingAdmissionPolicies and
// MutatingAdmissionPolicies: it finds those that are about a request, with
// their bindings and parameters, evaluates their expressions and refuses,
// warns, annotates or changes the object.
//
// Contract: a request is judged by the policies and bindings that are in the
// cache when it comes, so that a change takes effect for the requests after
// its answer. Expressions are compiled when a request first needs them. What
// goes wrong in one policy is a matter of its failurePolicy and of the
// requests that it matches. What clients are told is upstream's words. Nothing
// here writes.
package celpolicy
