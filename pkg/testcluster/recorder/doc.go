// Package recorder makes histories for pkg/testcluster/history: a random
// concurrent workload of real clients against real API servers, with every
// request, every watch event and every change of the store written down.
//
// Contract: Run starts the API servers over the backend of its Config, lets
// workers and informers work until each has done its share, waits until every
// open watch has told everything, stops the servers and returns the history.
// What happens is drawn from the seed, how it interleaves is not. Servers may
// be restarted on the way, history compacted, watches left unread. The backend
// is the caller's, and the record of its changes is taken below everything
// that a test may plant between it and the servers.
package recorder
