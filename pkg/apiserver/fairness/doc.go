// Package fairness decides when a request is served, as FlowSchemas and
// PriorityLevelConfigurations of flowcontrol.apiserver.k8s.io/v1 say: each
// request belongs to the first schema that matches, the schema to a level, and
// a level has so many seats. A request takes one or several of them while it
// is served; where there is none it is refused or waits in a queue, from which
// flows are served in turns.
//
// Contract: while a level has free seats and nobody waits, entering and leaving
// takes no lock and allocates nothing. A request never waits longer than its
// caller allows, and what waits is bounded by the queues of its level. Exempt
// requests never wait. Whatever the configuration lacks, the mandatory schemas
// and levels are there.
//
// Rules (rules.go), fair queues (queue.go), the division of seats (divide.go),
// the cost of requests (work.go) and the care for the default objects
// (upkeep.go) are pure; Controller puts them around atomic counters.
package fairness
