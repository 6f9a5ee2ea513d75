// Package csifake is a CSI driver for tests: it serves the identity and node
// services and announces itself to a node agent, all over real sockets. Volumes
// are folders, one for each handle, which it bind-mounts where it is asked to;
// that needs root and is best done in a mount namespace of the test's own. Block
// volumes are files.
//
// It counts calls, and can be made to fail, to hang, and to die between the work
// and the answer.
package csifake
