package storage

import "bytes"

// EncryptedPrefix begins every value that is encrypted at rest, as
// kube-apiserver writes it: k8s:enc:PROVIDER:v1:KEYNAME:CIPHERTEXT.
const EncryptedPrefix = "k8s:enc:"

// unreadableMark follows EncryptedPrefix where a reason stands in for a value.
const unreadableMark = "unreadable:"

// Unreadable is what a backend returns in place of a value that it found and
// cannot open, so that the other values around it can be read.
func Unreadable(reason string) []byte {
	return []byte(EncryptedPrefix + unreadableMark + reason)
}

// UnreadableReason says why a value cannot be read, or that it can be.
func UnreadableReason(value []byte) (reason string, unreadable bool) {
	rest, ok := bytes.CutPrefix(value, []byte(EncryptedPrefix))
	if !ok {
		return "", false
	}
	if reason, ok := bytes.CutPrefix(rest, []byte(unreadableMark)); ok {
		return string(reason), true
	}
	return "it is encrypted, and this server has no encryption configuration: give it the one with which it was written", true
}
