// Package hubctl holds the commands of the hubctl program. Each file is one
// command; app.go has what they share, and exit.go the exit statuses.
//
// It talks to a hub through package client alone, but for "dev", which starts
// nodes by running the program again with the hidden command "node". It knows nothing of
// Kubernetes, whose libraries take longer to build than all else: the plugin of kubectl
// is package kubectlhub, which shares what is exported here.
package hubctl
