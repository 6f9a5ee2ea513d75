package storage

import (
	"errors"
	"fmt"
)

// Sentinel errors. ErrNotFound, ErrExists, ErrConflict and ErrCompacted are
// also what errors.Is finds in the typed errors below.
var (
	ErrNotFound   = errors.New("the key does not exist")
	ErrExists     = errors.New("the key exists already")
	ErrConflict   = errors.New("the key has been changed since it was read")
	ErrCompacted  = errors.New("the revision is too old, its history has been compacted")
	ErrClosed     = errors.New("the store is closed")
	ErrTooLarge   = errors.New("the value is too large for the store")
	ErrNoSpace    = errors.New("the store has reached its space quota: delete objects, then compact and defragment it")
	ErrInvalidKey = errors.New("invalid key")
)

// ConflictError says that a write did not happen because the key was not at
// the expected revision. errors.Is finds ErrExists in it when the write
// expected no key, ErrNotFound when the key is missing, else ErrConflict.
type ConflictError struct {
	Key    string
	Expect Revision // what the write asked for
	// Current is the key as the transaction saw it, nil when it does not exist.
	Current *KV
	// Revision is the store's revision at that time.
	Revision Revision
}

func (e *ConflictError) Error() string {
	switch {
	case e.Expect == 0:
		return fmt.Sprintf("key %s: %v", e.Key, ErrExists)
	case e.Current == nil:
		return fmt.Sprintf("key %s: %v, expected it at revision %d", e.Key, ErrNotFound, e.Expect)
	}
	return fmt.Sprintf("key %s: %v: expected revision %d, found %d", e.Key, ErrConflict, e.Expect, e.Current.ModRevision)
}

// Is makes errors.Is see the sentinel that the conflict amounts to.
func (e *ConflictError) Is(target error) bool {
	switch {
	case e.Expect == 0:
		return target == ErrExists
	case e.Current == nil:
		return target == ErrNotFound
	}
	return target == ErrConflict
}

// CompactedError says that a revision can no longer be read or watched.
type CompactedError struct {
	// Compacted is the oldest revision that can still be read, 0 when unknown.
	// Watches can start at the revision after it.
	Compacted Revision
}

func (e *CompactedError) Error() string {
	if e.Compacted == 0 {
		return ErrCompacted.Error()
	}
	return fmt.Sprintf("%v up to %d", ErrCompacted, e.Compacted)
}

// Is makes errors.Is see ErrCompacted.
func (e *CompactedError) Is(target error) bool { return target == ErrCompacted }

// FutureRevisionError says that a read asked for a revision that the store has
// not reached.
type FutureRevisionError struct {
	Asked Revision
}

func (e *FutureRevisionError) Error() string {
	return fmt.Sprintf("the store has not reached revision %d", e.Asked)
}

// OutcomeUnknownError says that a write was sent and nobody knows whether it
// happened: the deadline passed or the connection broke before the answer. The
// write may still happen later. It must not be sent again without reading
// first, and the server never does that on behalf of a client.
type OutcomeUnknownError struct {
	Err error // why the answer is missing
}

func (e *OutcomeUnknownError) Error() string {
	return fmt.Sprintf("the outcome of the write is unknown, read the object before trying again: %v", e.Err)
}

func (e *OutcomeUnknownError) Unwrap() error { return e.Err }
