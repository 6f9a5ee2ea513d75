// Package jsonvalue reads and writes decoded JSON: maps, slices, strings,
// int64, float64, bool and nil, as unstructured objects hold them.
//
// Contract: Read gives what a strict decoding of sigs.k8s.io/json gives, or
// says that it cannot: then there is something wrong with the text or rare in
// it, and the library is to be asked, which explains. Append writes what
// encoding/json writes. Both cost a fraction of the libraries: a text is gone
// over once, and its strings are parts of one copy of it.
package jsonvalue
