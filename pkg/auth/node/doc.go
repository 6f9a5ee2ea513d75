// Package node narrows down what a node's agent may do to what its node needs.
//
// A Graph knows, from the pods bound to each node, what the node has business
// with: its pods, their secrets, configmaps, service accounts and claims, the
// volumes of the claims, and its volume attachments and resource slices. It is
// told of each change and answers from maps. The Authorizer lets an agent read
// those objects and no others, request tokens for its pods' service accounts,
// keep its own lease, CSINode and Node, and read its own pods; all other kinds
// it decides by the fixed rules of the system:node role.
//
// Authorization does not see objects. What an agent may write into those it
// may write is for Restrict, which admission calls with the object at hand.
package node
