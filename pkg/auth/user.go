package auth

import (
	"context"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"

	"coracle/pkg/auth/bootstraptoken"
)

// Names that carry a meaning in every Kubernetes cluster.
const (
	UserAnonymous = "system:anonymous"
	UserAPIServer = "system:apiserver"
	UserScheduler = "system:kube-scheduler"
	UserManager   = "system:kube-controller-manager"
	UserProxy     = "system:kube-proxy"
	// UserAdmin is the administrator that every cluster begins with.
	UserAdmin = "kubernetes-admin"
	// UserKubeletClient is the API server towards nodes' agents.
	UserKubeletClient = "kube-apiserver-kubelet-client"

	GroupMasters         = "system:masters"
	GroupNodes           = "system:nodes"
	GroupAuthenticated   = "system:authenticated"
	GroupUnauthenticated = "system:unauthenticated"
	GroupServiceAccounts = "system:serviceaccounts"
	GroupMonitoring      = "system:monitoring"
	GroupBootstrappers   = bootstraptoken.Group

	nodeUserPrefix           = "system:node:"
	serviceAccountUserPrefix = "system:serviceaccount:"
)

// Keys of User.Extra that authenticators of this package and of
// coracle/pkg/auth/token set.
const (
	ExtraCredentialID = "authentication.kubernetes.io/credential-id"
	ExtraPodName      = "authentication.kubernetes.io/pod-name"
	ExtraPodUID       = "authentication.kubernetes.io/pod-uid"
	ExtraNodeName     = "authentication.kubernetes.io/node-name"
	ExtraNodeUID      = "authentication.kubernetes.io/node-uid"
)

// User is an authenticated identity. It is shared between goroutines and must
// not be changed once it has left its authenticator.
type User struct {
	// Name is unique among the users active at one time.
	Name string
	// UID tells apart identities that had the same name at different times;
	// empty when the credential carries none.
	UID string
	// Groups are the names of the groups the user is in, in the order the
	// credential names them.
	Groups []string
	// Extra is what else the authenticator knows; keys are lower case.
	Extra map[string][]string
	// Remark is what there is to say about the credential, nil for nothing. It is
	// no part of who the user is.
	Remark *Remark
}

// Remark is what an authenticator has to say about a credential.
type Remark struct {
	// Key and Value are for the audit log.
	Key, Value string
	// Warning is for the client, empty for none.
	Warning string
}

// RemarkedError is the refusal of a credential that there is something to say
// about.
type RemarkedError struct {
	Remark Remark
	Err    error
}

// Error implements error.
func (e *RemarkedError) Error() string { return e.Err.Error() }

// Unwrap returns the refusal.
func (e *RemarkedError) Unwrap() error { return e.Err }

// InGroup says whether the user is in the group.
func (u *User) InGroup(group string) bool {
	return u != nil && slices.Contains(u.Groups, group)
}

// UserInfo returns the user in the form reviews, admission and audit show it.
// The result shares nothing with u.
func (u *User) UserInfo() authenticationv1.UserInfo {
	if u == nil {
		return authenticationv1.UserInfo{}
	}
	info := authenticationv1.UserInfo{
		Username: u.Name,
		UID:      u.UID,
		Groups:   slices.Clone(u.Groups),
	}
	if len(u.Extra) > 0 {
		info.Extra = make(map[string]authenticationv1.ExtraValue, len(u.Extra))
		for k, v := range u.Extra {
			info.Extra[k] = slices.Clone(v)
		}
	}
	return info
}

// withGroup returns u itself when it is in the group, else a copy that is.
func (u *User) withGroup(group string) *User {
	if u.InGroup(group) {
		return u
	}
	c := *u
	c.Groups = append(slices.Clone(u.Groups), group)
	return &c
}

// ServiceAccountName returns the user name of a service account.
func ServiceAccountName(namespace, name string) string {
	return serviceAccountUserPrefix + namespace + ":" + name
}

// ServiceAccountGroups returns the groups of every service account of a
// namespace.
func ServiceAccountGroups(namespace string) []string {
	return []string{GroupServiceAccounts, GroupServiceAccounts + ":" + namespace}
}

// SplitServiceAccountName takes the user name of a service account apart; ok
// is false for any other user.
func SplitServiceAccountName(user string) (namespace, name string, ok bool) {
	rest, found := strings.CutPrefix(user, serviceAccountUserPrefix)
	if !found {
		return "", "", false
	}
	namespace, name, found = strings.Cut(rest, ":")
	if !found || namespace == "" || name == "" || strings.Contains(name, ":") {
		return "", "", false
	}
	return namespace, name, true
}

// NodeUserName returns the user name a node's agent has.
func NodeUserName(node string) string { return nodeUserPrefix + node }

// NodeName returns the node whose agent the user is. The name alone is not
// enough: the user must be in the group of nodes as well. isNode is true and
// node empty for a member of the group whose name says no node.
func NodeName(u *User) (node string, isNode bool) {
	if !u.InGroup(GroupNodes) {
		return "", false
	}
	node, ok := strings.CutPrefix(u.Name, nodeUserPrefix)
	if !ok {
		return "", true
	}
	return node, true
}

type userKey struct{}

// WithUser returns a context that carries the user of a request.
func WithUser(ctx context.Context, u *User) context.Context {
	return context.WithValue(ctx, userKey{}, u)
}

// UserFrom returns the user of a request; ok is false when none was set.
func UserFrom(ctx context.Context) (u *User, ok bool) {
	u, ok = ctx.Value(userKey{}).(*User)
	return u, ok && u != nil
}
