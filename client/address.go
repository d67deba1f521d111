package client

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// defaultPort is where nodes listen for clients.
const defaultPort = "7400"

// CheckAddresses returns an error that says what is wrong with the addresses that somebody
// gives for [Connect], nil when they can be such. It asks nobody whether there is a hub.
func CheckAddresses(addresses string) error {
	_, err := parseAddresses(addresses)
	return err
}

// parseAddresses splits "host:port[,host:port…]"; the port may be left out.
func parseAddresses(list string) ([]string, error) {
	var addresses []string
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		address, err := withPort(part)
		if err != nil {
			return nil, err
		}
		addresses = append(addresses, address)
	}
	if len(addresses) == 0 {
		return nil, errors.New("no address of a hub given, want HOST:PORT[,HOST:PORT…]")
	}
	return addresses, nil
}

func withPort(address string) (string, error) {
	wrong := fmt.Errorf("address %q: want HOST:PORT", address)
	if strings.Contains(address, "/") {
		return "", fmt.Errorf("%w, without a scheme", wrong)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil { // most likely without a port
		host, port = strings.TrimSuffix(strings.TrimPrefix(address, "["), "]"), defaultPort
	}
	if strings.Contains(host, ":") {
		if _, err := netip.ParseAddr(host); err != nil {
			return "", wrong
		}
	}
	if host == "" || port == "" {
		return "", wrong
	}
	if strings.Trim(port, "+-0123456789") == "" { // else the name of one
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", fmt.Errorf("%w, with a port from 1 to 65535", wrong)
		}
	}
	return net.JoinHostPort(host, port), nil
}

// candidates returns the addresses to try after current was lost: where the
// node said to go, then the given ones, then those learned from Welcome. Given
// and learned ones are shuffled, so that not all clients of a lost node run to
// the same next one; current comes last in its part.
func candidates(redirect, given, learned []string, current string) []string {
	var all []string
	add := func(part []string, avoid bool) {
		for _, a := range part {
			if a != "" && !slices.Contains(all, a) && (a == current) == avoid {
				all = append(all, a)
			}
		}
	}
	add(redirect, false)
	for _, part := range [][]string{given, learned} {
		part = slices.Clone(part)
		rand.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] }) //nolint:gosec // to spread load
		add(part, false)
		add(part, true)
	}
	return all
}

// elsewhereMax bounds the addresses that are tried because nodes name them which refuse the
// client: one that means ill names addresses where nobody answers.
const elsewhereMax = 10

// elsewhere returns where a node that refuses a client says to go, without the addresses
// that are known, in random order.
func elsewhere(refusal error, known []string) []string {
	refused, ok := errors.AsType[*Error](refusal)
	if !ok || len(known) > elsewhereMax {
		return nil
	}
	var others []string
	for _, a := range refused.Elsewhere[:min(len(refused.Elsewhere), elsewhereMax)] {
		if !slices.Contains(known, a) && !slices.Contains(others, a) {
			others = append(others, a)
		}
	}
	rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] }) //nolint:gosec // to spread load
	return others
}
