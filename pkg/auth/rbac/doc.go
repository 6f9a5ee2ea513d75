// Package rbac decides on requests by Roles, ClusterRoles and their bindings.
//
// The Authorizer reads them through a Source, compiles what it needs on first
// use, and keeps it until the Source's revision changes: a decision after a
// write that the Source shows is made with that write. A decision costs a few
// map look-ups for each name and group of the user, whatever the number of
// roles.
//
// Rules mean what they mean in Kubernetes: "*" stands for every verb, group or
// resource; a resource "pods" is not "pods/log"; "*/scale" is the scale
// subresource of everything; resource names restrict a rule to requests that
// carry one of them; a URL ends in "*" to mean all that start with the rest.
// Rules only add up, nothing is denied: the answer is Allow or NoOpinion.
//
// The package also holds the functions that keep users from granting more than
// they hold (Covers, Guard) and that compute aggregated ClusterRoles
// (Aggregate).
package rbac
