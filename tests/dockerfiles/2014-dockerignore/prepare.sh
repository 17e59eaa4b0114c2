#!/bin/sh
mkdir .git; echo x >.git/config
