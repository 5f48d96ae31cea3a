"""Enrolment hygiene: likely mistakes in a folder of people, and faces too blurred to trust."""
