package registry

import (
	"errors"
	"os"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	table "coracle/pkg/resource"
)

// TestDecodePlain: of each kind, a plain body is decoded as the library's
// serializer does it, type and all.
func TestDecodePlain(t *testing.T) {
	d, plain := NewDecoder(table.Builtin().Scheme()), 0
	for _, res := range table.Builtin().All() {
		data, err := os.ReadFile("../resource/testdata/kinds/" + res.GroupResource().String() + ".yaml")
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := yaml.YAMLToJSON(data)
		if err != nil {
			t.Fatal(err)
		}
		want, gvk := res.GVK(), res.GVK()
		library, _, err := d.strict[JSON].Decode(body, &gvk, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := d.decodePlain(body, want)
		if got == nil {
			if !res.StoredJSON {
				t.Errorf("%s: its example is not plain", res.Kind)
			}
			continue
		}
		plain++
		if !reflect.DeepEqual(got, library) {
			t.Errorf("%s: the library (-), ours (+):\n%s", res.Kind, cmp.Diff(library, got))
		}
		if other := d.decodePlain(body, table.Builtin().All()[0].GVK()); other != nil && res != table.Builtin().All()[0] && res.Kind != table.Builtin().All()[0].Kind {
			t.Errorf("%s was taken for another kind", res.Kind)
		}
	}
	if plain < 50 {
		t.Errorf("only %d kinds have a plain example", plain)
	}
}
