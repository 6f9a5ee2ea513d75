// Package audit writes down who asked the API server for what, and how it was
// answered: events of audit.k8s.io/v1, one line of JSON each, as a Policy says.
//
// Contract: writing an event never waits for the disk or a webhook, and never
// fails a request. What these do not take in time is dropped within a bound,
// counted and logged. Bodies are recorded at the levels Request and
// RequestResponse only, as JSON.
package audit
