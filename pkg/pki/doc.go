// Package pki makes and keeps the certificates of a cluster: authorities,
// client and serving certificates, certificates for signing requests, and the
// files they live in.
//
// Everything is ECDSA P-256; authorities and keys made elsewhere may be RSA.
// Time and randomness are arguments. Functions that make certificates are pure
// but for that; LoadOrCreateCA and LoadOrCreate keep files: they write each
// file whole or not at all, keys readable by their owner only, and calling
// them again changes nothing unless a certificate is due, lacks a name, or is
// from another authority. Keeper is the loop that calls LoadOrCreate in time and
// puts the result into a Live, from which TLS configurations take it without a
// restart.
//
// Rotate replaces an authority in phases, between which everything runs, and
// LoadAuthorities says what counts in the present one. A crash at any moment
// leaves one phase or the next.
package pki
