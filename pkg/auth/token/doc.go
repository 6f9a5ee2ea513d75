// Package token issues and checks service account tokens: JSON Web Tokens with
// the claims that Kubernetes gives them, bound to the service account and, if
// asked for, to a pod, a secret or a node.
//
// An Issuer signs with one key. A Verifier believes the keys of a KeySet, each
// with the one algorithm that fits it, and looks up on every request that the
// service account and the bound object still exist with the UID in the token:
// a deleted pod's token is worthless as soon as the API server knows of the
// deletion, and a new pod of the same name does not revive it. Only the
// signature check, which cannot change, is remembered.
//
// Tokens of LegacyIssuer are kept in Secrets and do not expire. Such a token is
// worth what its Secret says: it counts while the Secret holds it.
package token
