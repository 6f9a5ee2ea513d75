// Package cache is the watch cache: the API server reads through it and writes
// through it.
//
// One watch on the whole prefix feeds it. Revisions are applied strictly in
// order; the cache's own commits are applied at once when their predecessors
// are there and otherwise wait until the watch has filled the hole, so that a
// read after a write is fresh without polling. Reads take no lock: each kind
// publishes an immutable ordered tree.
//
// Watchers of one namespace, of one object, or of one value of a field form a
// group: only the group of an object is woken by its events.
//
// Every kind has an event ring. A watcher pulls: it is a position in the ring
// and a filter, so that a slow one delays nobody; when the ring has passed it,
// it reads on from the store's history, and gets *ExpiredError when that is
// compacted too.
//
// When the store's history was compacted past the feed, the cache lists again
// and its rings begin anew. Nobody can know what happened in between, and a
// watcher is told nothing that did not: one that has not passed the compaction
// gets *ExpiredError, and lists again; others read on from the store.
package cache
