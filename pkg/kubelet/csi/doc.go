// Package csi speaks to the CSI drivers of a node and tells the cluster of them.
//
// Drivers takes in the drivers that register with the agent (it is the
// plugins.Handler of their type), and keeps what the cluster knows of them: the
// node's CSINode object, the annotation of the Node that names the driver's ids
// for it, and the topology labels of the Node. A driver counts as registered
// when all of that is written. One that is gone leaves CSINode and annotation;
// its labels stay, as other drivers may have the same.
//
// A Driver makes the calls of CSI's node service, each with a deadline. What a
// volume needs where, and when, is package volume's business.
//
// Nothing but this package (and csifake, a driver for tests) knows CSI's
// protobuf types.
package csi
