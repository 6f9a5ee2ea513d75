// Package reconcile is the thin loop around every controller's pure core.
//
// A Loop turns events of shared informers into keys, runs one reconcile of a
// key at a time on a bounded number of workers, and retries with back-off. A
// reconcile is told a name and never an event: it reads the informers' caches,
// decides, and writes what differs. What it returns means:
//
//	Result{}, nil                 done until an event names the key again
//	Result{RequeueAfter: d}, nil  done; run again after d even without an event
//	_, err                        run again after the key's back-off
//	_, Terminal(err)              logged, not run again until an event
//
// A panic counts as an error of that key; the other keys go on.
//
// Read your writes. A reconcile reports what it wrote with Request.Wrote and
// Request.Deleted. The next reconcile of the same key does not start before
// every informer that shows such a write has caught up: for a written object
// its informer's cache has reached the resourceVersion that the write
// returned, for a deleted one the cache no longer holds that UID alive. So no
// controller acts twice on one intent, however late its own writes come back.
// Other keys are not delayed. A write whose answer was lost is reported with
// Request.Unsure: the server is asked what came of it first.
//
// A Loop owns all its goroutines: Run returns when they have ended.
package reconcile
