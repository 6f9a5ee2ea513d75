// Package h2 serves HTTP/2 on connections that net/http has accepted and made
// secure (http.Server.TLSNextProto), for the same handlers and with the same
// behaviour.
//
// It exists for what a request costs. net/http passes every frame between the
// goroutine that reads, the one that owns the connection and the one that
// writes. Here a connection has one goroutine, which reads; a handler puts the
// frames of its answer together itself, and answers that are ready at the same
// time go out in one write. Handlers run on goroutines that are used again,
// whose stacks have grown already.
//
// What a peer can make a connection hold is bounded: streams and handlers by
// MaxStreams, the headers of a request by MaxHeaderBytes, bodies that nobody has
// read by the windows, frames that answer frames by maxReplies, what waits to be
// written by maxPending and one frame of each stream. A peer that stays silent
// is asked for a sign of life; one that takes nothing for as long is given up.
//
// It does not push, does without priorities, and drops the trailers of requests.
package h2
