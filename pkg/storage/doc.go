// Package storage is the contract between the API server and the place where
// objects are kept: a revisioned key-value store with the semantics of etcd v3.
//
// A store has one revision for all keys. It grows by one with every
// transaction that changes something and with nothing else; a failed
// transaction takes none. Every key carries the revision that made it
// (CreateRevision) and the one that last changed it (ModRevision).
//
// A write is one transaction: it compares the key's ModRevision with the
// caller's expectation and either writes or returns the current object in a
// *ConflictError. A write whose outcome nobody knows returns
// *OutcomeUnknownError; the caller must answer with an error and must never
// send such a write again by itself.
//
// A watch delivers every change under a prefix exactly once, in order, with
// all changes of one revision together. History is kept until Compact; what
// was compacted is refused with *CompactedError, never skipped in silence.
//
// Two backends implement the contract, storage/etcd and storage/memory, and
// one suite, storage/storagetest, holds both to it. Keys and values are
// kube-apiserver's: see Key.
package storage
