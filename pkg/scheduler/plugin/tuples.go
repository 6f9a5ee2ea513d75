package plugin

import "encoding/binary"

// tuples numbers tuples of numbers.
type tuples struct {
	ids  map[string]int32
	list [][]int32
	key  []byte // scratch
}

func newTuples() *tuples { return &tuples{ids: map[string]int32{}} }

// id is the number of a tuple, which is copied when it is new.
func (t *tuples) id(parts []int32) int32 {
	k := t.key[:0]
	for _, v := range parts {
		k = binary.LittleEndian.AppendUint32(k, uint32(v))
	}
	t.key = k
	if id, ok := t.ids[string(k)]; ok {
		return id
	}
	id := int32(len(t.list))
	t.ids[string(k)] = id
	t.list = append(t.list, append([]int32(nil), parts...))
	return id
}

// of is the tuple of a number.
func (t *tuples) of(id int32) []int32 { return t.list[id] }
