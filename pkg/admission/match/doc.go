// Package match decides which requests the authors of webhooks and of
// admission policies want to be asked about, and shows the objects of a
// request in the version that they wrote their rules for.
//
// Contract: what is shown is never changed by anyone; Replace alone changes
// the request, and keeps the pointer to its object. A Request belongs to one
// goroutine until Prepare has been called for each form that is going to be
// read; reading those is safe from many.
package match
