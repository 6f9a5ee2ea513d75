package ctl

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// apiResource is a type that the server has.
type apiResource struct {
	metav1.APIResource
	gv schema.GroupVersion
}

// name is the one that is unique: with the group.
func (r apiResource) full() string {
	return schema.GroupResource{Group: r.gv.Group, Resource: r.Name}.String()
}

// resources lists the server's types at their preferred versions, without
// subresources. It returns what it got along with an error.
func (t *tool) resources(fresh bool) ([]apiResource, error) {
	d, err := t.flags.ToDiscoveryClient()
	if err != nil {
		return nil, err
	}
	if fresh {
		d.Invalidate()
	}
	lists, err := d.ServerPreferredResources()
	if discovery.IsGroupDiscoveryFailedError(err) && len(lists) > 0 {
		fmt.Fprintln(t.Err, "Warning:", escape(err.Error()))
		err = nil
	}
	var out []apiResource
	for _, list := range lists {
		gv, gvErr := schema.ParseGroupVersion(list.GroupVersion)
		if gvErr != nil {
			continue
		}
		for _, r := range list.APIResources {
			if !strings.Contains(r.Name, "/") {
				out = append(out, apiResource{r, gv})
			}
		}
	}
	return out, err
}

// typeNames are all names a type may be called by.
func (t *tool) typeNames() []string {
	all, _ := t.resources(false) // what is there is good enough for hints
	var names []string
	for _, r := range all {
		names = append(append(names, r.Name, r.SingularName), r.ShortNames...)
	}
	return names
}

func (t *tool) apiResources() *cobra.Command {
	var group, output, sortBy string
	var verbs, categories []string
	var namespaced, noHeaders, cached bool
	cmd := &cobra.Command{
		Use:   "api-resources",
		Short: "List the types that the server has",
		Args:  between(0, 0, "none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := t.resources(!cached)
			if err != nil {
				return err
			}
			all = slices.DeleteFunc(all, func(r apiResource) bool {
				return cmd.Flags().Changed("api-group") && r.gv.Group != group ||
					cmd.Flags().Changed("namespaced") && r.Namespaced != namespaced ||
					!hasAll(r.Verbs, verbs) || !hasAll(r.Categories, categories)
			})
			slices.SortStableFunc(all, func(a, b apiResource) int {
				if sortBy == "kind" {
					return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.gv.Group, b.gv.Group))
				}
				return cmp.Or(cmp.Compare(a.gv.Group, b.gv.Group), cmp.Compare(a.Name, b.Name))
			})
			return t.printResources(all, output, noHeaders)
		},
	}
	f := cmd.Flags()
	f.StringVar(&group, "api-group", "", "of this group only (\"\" is the core group)")
	f.BoolVar(&namespaced, "namespaced", true, "with true those in namespaces only, with false the others only")
	f.StringSliceVar(&verbs, "verbs", nil, "only types with all of these verbs")
	f.StringSliceVar(&categories, "categories", nil, "only types in all of these categories")
	f.StringVarP(&output, "output", "o", "", "wide or name")
	f.StringVar(&sortBy, "sort-by", "", "name or kind")
	f.BoolVar(&noHeaders, "no-headers", false, "leave the headers out")
	f.BoolVar(&cached, "cached", false, "answer from the cache on disk when there is one")
	return cmd
}

func hasAll(have, want []string) bool {
	for _, w := range want {
		if !slices.Contains(have, w) {
			return false
		}
	}
	return true
}

func (t *tool) printResources(all []apiResource, output string, noHeaders bool) error {
	w := t.table()
	if !noHeaders && output != "name" {
		fmt.Fprint(w, "NAME\tSHORTNAMES\tAPIVERSION\tNAMESPACED\tKIND")
		if output == "wide" {
			fmt.Fprint(w, "\tVERBS\tCATEGORIES")
		}
		fmt.Fprintln(w)
	}
	for _, r := range all {
		switch output {
		case "name":
			fmt.Fprintln(w, r.full())
		case "", "wide":
			fmt.Fprintf(w, "%s\t%s\t%s\t%t\t%s", r.Name, strings.Join(r.ShortNames, ","), r.gv, r.Namespaced, r.Kind)
			if output == "wide" {
				fmt.Fprintf(w, "\t%s\t%s", strings.Join(r.Verbs, ","), strings.Join(r.Categories, ","))
			}
			fmt.Fprintln(w)
		default:
			return usagef("-o %s is not known: use wide or name", output)
		}
	}
	return w.Flush()
}

func (t *tool) apiVersions() *cobra.Command {
	return &cobra.Command{
		Use:   "api-versions",
		Short: "List the groups and versions that the server has",
		Args:  between(0, 0, "none"),
		RunE: func(*cobra.Command, []string) error {
			d, err := t.flags.ToDiscoveryClient()
			if err != nil {
				return err
			}
			d.Invalidate()
			groups, err := d.ServerGroups()
			if err != nil {
				return err
			}
			versions := metav1.ExtractGroupVersions(groups)
			slices.Sort(versions)
			for _, v := range versions {
				fmt.Fprintln(t.Out, v)
			}
			return nil
		},
	}
}
