package main

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
)

// definite says that an error of Produce promises that the record is not in the log. Others may be answered
// after the append: NOT_LEADER_OR_FOLLOWER to a waiting acks=all request, for one, is unknown.
func definite(code int16) bool {
	switch code {
	case 10, // MESSAGE_TOO_LARGE
		19, // NOT_ENOUGH_REPLICAS
		29, // TOPIC_AUTHORIZATION_FAILED
		42, // INVALID_REQUEST
		87: // INVALID_RECORD
		return true
	}
	return false
}

func errorName(code int16) string {
	if e := (*kerr.Error)(nil); errors.As(kerr.ErrorForCode(code), &e) {
		return e.Message
	}
	return "none"
}
