package apiserver

import (
	"bytes"
	"errors"
	"io"
	"net/http/httptest"
	"testing"
	"testing/iotest"
)

// TestReadBody: a body is read whole, whatever length it is said to have and in
// whatever pieces it comes.
func TestReadBody(t *testing.T) {
	for _, size := range []int{0, 1, 511, 512, 5000, trustedLength, trustedLength + 1, 200_000} {
		want := bytes.Repeat([]byte("x"), size)
		for _, said := range []int64{-1, 0, 1, int64(size), int64(size) + 100, 10 << 20} {
			for name, in := range map[string]io.Reader{
				"whole": bytes.NewReader(want), "in halves": iotest.HalfReader(bytes.NewReader(want)), "with its end": iotest.DataErrReader(bytes.NewReader(want)),
			} {
				r := httptest.NewRequest("POST", "/", in)
				r.ContentLength = said
				if got, err := readBody(httptest.NewRecorder(), r); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%d bytes %s, said to be %d: %d, %v", size, name, said, len(got), err)
				}
			}
		}
	}
	broken := errors.New("broken")
	r := httptest.NewRequest("POST", "/", io.MultiReader(bytes.NewReader([]byte("{")), iotest.ErrReader(broken)))
	r.ContentLength = 10
	if _, err := readBody(httptest.NewRecorder(), r); !errors.Is(err, broken) {
		t.Errorf("a body that breaks off: %v", err)
	}
	r = httptest.NewRequest("POST", "/", bytes.NewReader(make([]byte, maxBody+1)))
	r.ContentLength = 100
	if _, err := readBody(httptest.NewRecorder(), r); err == nil {
		t.Error("a body that is too large is read")
	}
}
