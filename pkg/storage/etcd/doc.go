// Package etcd keeps objects in etcd v3, either in one that runs inside this
// process (StartEmbedded) or in one reached over the network (Dial). It is the
// only package that knows etcd's client and server.
package etcd
