// Package auth says who a request comes from and what it may do.
//
// Authentication: an Authenticator answers a request with a User, with "not
// mine" (nil, false, nil), or with an error, which means that credentials of
// its kind were shown and are wrong. An error of the chain is a 401 and never
// turns into the anonymous user. Authenticators read the request and change
// nothing in it: whoever forwards a request to a backend calls
// StripCredentials first.
//
// Authorization: an Authorizer answers Attributes with Allow, Deny or
// NoOpinion. In a Union the first Allow or Deny is the answer; if nobody has
// an opinion the request is refused. Authorizers only read memory; they do no
// I/O and may be called from any goroutine.
//
// The subpackages hold the parts with a life of their own: token (service
// account tokens), rbac (roles and bindings), node (the Node authorizer and
// NodeRestriction), policy (the default roles and bindings).
package auth
