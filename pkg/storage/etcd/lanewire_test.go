package etcd

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"coracle/pkg/storage"
)

// TestTransactionOf: the bytes are those of the message that is meant.
func TestTransactionOf(t *testing.T) {
	key := []byte("/registry/pods/default/web")
	mod := func(rev int64) []*pb.Compare {
		return []*pb.Compare{{Result: pb.Compare_EQUAL, Target: pb.Compare_MOD, Key: key, TargetUnion: &pb.Compare_ModRevision{ModRevision: rev}}}
	}
	put := func(value []byte, lease int64) []*pb.RequestOp {
		return []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value, Lease: lease}}}}
	}
	read := []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}}
	large := make([]byte, 70000)
	for _, c := range []struct {
		name   string
		expect int64
		change change
		want   *pb.TxnRequest
	}{
		{"create", 0, change{value: []byte("v")}, &pb.TxnRequest{Compare: mod(0), Success: put([]byte("v"), 0), Failure: read}},
		{"update of a large value with a lease", 1 << 40, change{value: large, lease: -7}, &pb.TxnRequest{Compare: mod(1 << 40), Success: put(large, -7), Failure: read}},
		{"an empty value", 5, change{}, &pb.TxnRequest{Compare: mod(5), Success: put(nil, 0), Failure: read}},
		{"deletion", 9, change{delete: true}, &pb.TxnRequest{Compare: mod(9), Failure: read, Success: []*pb.RequestOp{
			{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key}}}}}},
	} {
		got := &pb.TxnRequest{}
		if err := proto.Unmarshal(transactionOf(string(key), storage.Revision(c.expect), c.change)[5:], got); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// FuzzRevisionIn: what is read of an answer is what the library reads.
func FuzzRevisionIn(f *testing.F) {
	for _, m := range []*pb.TxnResponse{
		{Header: &pb.ResponseHeader{ClusterId: 1 << 63, MemberId: 7, Revision: 42, RaftTerm: 3}, Succeeded: true},
		{Header: &pb.ResponseHeader{Revision: 1 << 50}},
		{Succeeded: true},
	} {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		succeeded := false
		rev, err := revisionIn(raw, func(num protowire.Number, v uint64) {
			if num == txnSucceeded {
				succeeded = v != 0
			}
		})
		want := &pb.TxnResponse{}
		if proto.Unmarshal(raw, want) != nil {
			return
		}
		if (err == nil) != (want.GetHeader().GetRevision() > 0) {
			t.Fatalf("error %v for %v", err, want)
		}
		if err == nil && (int64(rev) != want.Header.Revision || succeeded != want.Succeeded) {
			t.Fatalf("%d %v, want %v", rev, succeeded, want)
		}
	})
}
