package ctl

import (
	"strings"

	"github.com/spf13/cobra"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// ruleFlags describe the rules of a role.
type ruleFlags struct {
	verbs, resources, names, urls []string
}

func (r *ruleFlags) add(cmd *cobra.Command, cluster bool) {
	f := cmd.Flags()
	f.StringSliceVar(&r.verbs, "verb", nil, "what may be done: get, list, watch, create, ...")
	f.StringSliceVar(&r.resources, "resource", nil, "to what: TYPE, TYPE.GROUP or TYPE/SUBRESOURCE")
	f.StringSliceVar(&r.names, "resource-name", nil, "only to objects of these names")
	if cluster {
		f.StringSliceVar(&r.urls, "non-resource-url", nil, "to a URL of the API server, for example /metrics")
	}
}

// rules makes one rule for each API group. Types are checked with the server
// so that a slip of the pen does not make a role that allows nothing.
func (r *ruleFlags) rules(t *tool) ([]rbacv1.PolicyRule, error) {
	if len(r.verbs) == 0 {
		return nil, usagef("say what may be done with --verb=get,list,...")
	}
	if len(r.resources) == 0 && len(r.urls) == 0 {
		return nil, usagef("say to what with --resource=TYPE")
	}
	mapper, err := t.flags.ToRESTMapper()
	if err != nil {
		return nil, err
	}
	var out []rbacv1.PolicyRule
	for _, res := range r.resources {
		name, sub, _ := strings.Cut(res, "/")
		gr := schema.ParseGroupResource(name)
		if name != "*" {
			gvr, err := mapper.ResourceFor(gr.WithVersion(""))
			if err != nil {
				return nil, err
			}
			gr = gvr.GroupResource()
		}
		full := gr.Resource
		if sub != "" {
			full += "/" + sub
		}
		if n := len(out); n > 0 && out[n-1].APIGroups[0] == gr.Group {
			out[n-1].Resources = append(out[n-1].Resources, full)
			continue
		}
		out = append(out, rbacv1.PolicyRule{Verbs: r.verbs, APIGroups: []string{gr.Group}, Resources: []string{full}, ResourceNames: r.names})
	}
	if len(r.urls) > 0 {
		out = append(out, rbacv1.PolicyRule{Verbs: r.verbs, NonResourceURLs: r.urls})
	}
	return out, nil
}

func (t *tool) createRole() *cobra.Command {
	var rf ruleFlags
	cmd := t.generate(generator{
		use: "role NAME --verb=VERB --resource=TYPE", short: "Create a role of one namespace", namespaced: true,
		example: "  ctl create role pod-reader --verb=get,list,watch --resource=pods,pods/log",
		make: func(ns, name string) (runtime.Object, error) {
			rules, err := rf.rules(t)
			return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns}, Rules: rules}, err
		},
	})
	rf.add(cmd, false)
	return cmd
}

func (t *tool) createClusterRole() *cobra.Command {
	var rf ruleFlags
	cmd := t.generate(generator{
		use: "clusterrole NAME --verb=VERB --resource=TYPE", short: "Create a role of the whole cluster",
		make: func(_, name string) (runtime.Object, error) {
			rules, err := rf.rules(t)
			return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}, err
		},
	})
	rf.add(cmd, true)
	return cmd
}

// subjectFlags describe who gets a role.
type subjectFlags struct {
	role, clusterRole              string
	users, groups, serviceAccounts []string
}

func (s *subjectFlags) add(cmd *cobra.Command, namespaced bool) {
	f := cmd.Flags()
	if namespaced {
		f.StringVar(&s.role, "role", "", "role of this namespace")
	}
	f.StringVar(&s.clusterRole, "clusterrole", "", "role of the cluster")
	f.StringSliceVar(&s.users, "user", nil, "users who get it")
	f.StringSliceVar(&s.groups, "group", nil, "groups that get it")
	f.StringSliceVar(&s.serviceAccounts, "serviceaccount", nil, "service accounts that get it, as NAMESPACE:NAME")
}

func (s *subjectFlags) ref() (rbacv1.RoleRef, error) {
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName}
	switch {
	case (s.role == "") == (s.clusterRole == ""):
		return ref, usagef("give one role, with --role or --clusterrole")
	case s.role != "":
		ref.Kind, ref.Name = "Role", s.role
	default:
		ref.Kind, ref.Name = "ClusterRole", s.clusterRole
	}
	return ref, nil
}

func (s *subjectFlags) subjects() ([]rbacv1.Subject, error) {
	var out []rbacv1.Subject
	for _, u := range s.users {
		out = append(out, rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: u})
	}
	for _, g := range s.groups {
		out = append(out, rbacv1.Subject{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: g})
	}
	for _, sa := range s.serviceAccounts {
		ns, name, ok := strings.Cut(sa, ":")
		if !ok || ns == "" || name == "" {
			return nil, usagef("--serviceaccount=%s is not of the form NAMESPACE:NAME", sa)
		}
		out = append(out, rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: ns, Name: name})
	}
	return out, nil
}

func (t *tool) createRoleBinding() *cobra.Command {
	var s subjectFlags
	cmd := t.generate(generator{
		use: "rolebinding NAME --role=ROLE|--clusterrole=ROLE --user=USER", short: "Give a role in one namespace", namespaced: true,
		make: func(ns, name string) (runtime.Object, error) {
			ref, err := s.ref()
			if err != nil {
				return nil, err
			}
			subjects, err := s.subjects()
			return &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns}, RoleRef: ref, Subjects: subjects}, err
		},
	})
	s.add(cmd, true)
	return cmd
}

func (t *tool) createClusterRoleBinding() *cobra.Command {
	var s subjectFlags
	cmd := t.generate(generator{
		use: "clusterrolebinding NAME --clusterrole=ROLE --user=USER", short: "Give a role in the whole cluster",
		make: func(_, name string) (runtime.Object, error) {
			ref, err := s.ref()
			if err != nil {
				return nil, err
			}
			subjects, err := s.subjects()
			return &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: ref, Subjects: subjects}, err
		},
	})
	s.add(cmd, false)
	return cmd
}
